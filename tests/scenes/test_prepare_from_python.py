"""Preparing from plain scripts and notebooks: worker processes where they can start, this process where they cannot."""

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("embreex")

PREPARE = "prepare([Room(seed=s) for s in range(COUNT)], 'rooms', workers=2)"
IMPORTS = "from stereopsis.scenes.prepare import Room, prepare\n"
REPORT = "print(report.totals())\n"


def run(script: str, folder: Path, *, stdin: bool = False) -> subprocess.CompletedProcess[str]:
    (folder / "script.py").write_text(script)
    command = [sys.executable, *([] if stdin else ["script.py"])]
    given = script if stdin else None
    return subprocess.run(command, cwd=folder, input=given, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize(("count", "warned"), [(2, False), (6, True)])
def test_a_script_without_a_guard_does_the_work_itself(tmp_path, count, warned):
    """Few scenes need no word; many are made all the same, and the script's author learns how to use all CPUs."""
    done = run(f"{IMPORTS}report = {PREPARE.replace('COUNT', str(count))}\n{REPORT}", tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{count} done, 0 there already, 0 failed\n"  # once: no worker ran the script again
    assert ("no 'if __name__ == \"__main__\":'" in done.stderr) is warned
    assert ("use " in done.stderr and "CPUs" in done.stderr) is warned


def test_a_script_with_a_guard_uses_workers(tmp_path):
    body = f"report = {PREPARE.replace('COUNT', '2')}\n    {REPORT}"
    seen = "import multiprocessing\nprint('imported by', multiprocessing.current_process().name)\n"
    done = run(f"{IMPORTS}{seen}if __name__ == '__main__':\n    {body}", tmp_path)
    assert done.returncode == 0, done.stderr
    assert "2 done, 0 there already, 0 failed\n" in done.stdout
    assert "imported by SpawnProcess" in done.stdout
    assert done.stderr == ""


def test_words_on_standard_input_are_no_script_that_workers_could_import(tmp_path):
    done = run(f"{IMPORTS}report = {PREPARE.replace('COUNT', '2')}\n{REPORT}", tmp_path, stdin=True)
    assert (done.returncode, done.stdout) == (0, "2 done, 0 there already, 0 failed\n"), done.stderr
    assert done.stderr == ""


def test_a_notebook_uses_workers(tmp_path):
    nbclient = pytest.importorskip("nbclient")
    nbformat = pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel")
    code = f"{IMPORTS}report = {PREPARE.replace('COUNT', '2')}\n{REPORT}"
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
    client = nbclient.NotebookClient(
        book, timeout=120, kernel_name="python3", resources={"metadata": {"path": tmp_path}}
    )
    client.execute()
    said = [output for output in book.cells[0].outputs if output.output_type == "stream"]
    assert [(output.name, output.text) for output in said] == [("stdout", "2 done, 0 there already, 0 failed\n")]
