"""Checks of HumanEval+ and MBPP+ by the rules of EvalPlus."""
