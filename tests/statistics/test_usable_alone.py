from __future__ import annotations

import doctest
import subprocess
import sys

import workbench.statistics


def test_the_example_in_the_docstring_holds():
    assert doctest.testmod(workbench.statistics) == (0, 3)


def test_statistics_load_numpy_scipy_and_nothing_else_of_weight():
    program = "import sys, workbench.statistics; print(*sorted({name.split('.')[0] for name in sys.modules}))"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "pandas", "pyarrow", "mlflow", "optuna", "pydantic", "rich"} & set(loaded)


def test_reading_and_reporting_results_load_no_torch():
    program = "import sys, workbench.reporting; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.split()
    assert not {"torch", "mlflow", "optuna", "pandas"} & set(loaded)
