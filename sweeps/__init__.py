"""One file, one question. Each exposes `SWEEP`; run it by name (`workbench run quickstart`) or copy it as a start."""
