"""Hand-written samples and tests of five HumanEval problems: right, wrong, constant and crashing programs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

COMPLETIONS = {
    "HumanEval/53": [  # add(x, y)
        "    return x + y\n",
        "    return y + x\n",
        "    return x - y\n",
        "    return x * y\n",
        "    return x +\n",
        "    return x + y\n",
    ],
    "HumanEval/23": [  # strlen(string)
        "    return 0\n",
        "    return 0\n",
        "    return 0\n",
        "    return len(string)\n",
        "    return sum(1 for _ in string)\n",
        "    return [len(string)]\n",
    ],
    "HumanEval/35": [  # max_element(l)
        "    return l[0]\n",
        "    return l[0]\n",
        "    return l[0]\n",
        "    return max(l)\n",
        "    return sorted(l)[-1]\n",
        "    raise ValueError(l)\n",
    ],
    "HumanEval/28": [  # concatenate(strings)
        "    return ''.join(strings)\n",
        "    return ' '.join(strings)\n",
        "    return strings\n",
        "    return strings[0]\n",
        "    import os\n    os._exit(0)\n",
        "",
    ],
    "HumanEval/45": [  # triangle_area(a, h)
        "    return a * h / 2.0\n",
        "    return a * h\n",
        "    return a * h\n",
        "    return a + h\n",
        "    return h * a\n",
        "    return 0.5 * a * h\n",
    ],
}

TESTS = {
    "HumanEval/53": [
        "add(2, 3) == 5\nassert add(5, 7) == 12\nassert add(0, 4) == 4",
        "add(2, 3) == 5\nassert add(1, 1) == 3",
        "add(2, 3) == ",
    ],
    "HumanEval/23": ["strlen('') == 0\nassert strlen('abc') == 3", "strlen('abc') == 3\nassert strlen('a b') == 3"],
    "HumanEval/35": ["max_element([1, 2, 3]) == 3\nassert max_element([5, 3, 9]) == 9", "max_element([3]) == 3"],
    "HumanEval/28": ["concatenate([]) == ''\nassert concatenate(['a', 'b']) == 'ab'", "True # no call"],
    "HumanEval/45": ["5", "", "not valid python ("],
}


def write_rows(path: Path, by_task: dict[str, list[str]], **fields: Any) -> Path:
    """Write a row per text."""
    rows = [{"task_id": task_id, "completion": text, **fields} for task_id, texts in by_task.items() for text in texts]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def write_samples(folder: Path) -> Path:
    """Write the samples, six of each problem."""
    return write_rows(folder / "samples.jsonl", COMPLETIONS)


def write_tests(folder: Path) -> Path:
    """Write the texts of the tests."""
    return write_rows(folder / "tests.jsonl", TESTS)
