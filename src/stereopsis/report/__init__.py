"""Reports: one self-contained HTML file, or a table in the terminal, for a run or a comparison of runs.

write_report(Path("runs/demo"))       # -> runs/demo/report.html
console.print(text_table(Path("runs/demo")))
"""

from stereopsis.report.page import write_report
from stereopsis.report.text import text_table

__all__ = ["text_table", "write_report"]
