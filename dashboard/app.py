"""The dashboard: `streamlit run app.py -- HOME` shows the plans of a runtime folder and follows a running sweep.

Reads, never trains, and loads no torch. Importing this module loads nothing; `PATH` is what Streamlit runs.
"""

from __future__ import annotations

from pathlib import Path

PATH = Path(__file__).resolve()

if __name__ == "__main__":
    from dashboard.frame import main

    main()
