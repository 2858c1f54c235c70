"""HTML pages, tables and plots: of one score, of several scores, and of a distillation run."""
