"""A data folder of Video-3D-LLM with two tiny scenes."""

from pathlib import Path

import pytest
from video3dllm_folder import write_data_folder


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The data folder."""
    data = tmp_path / "Video-3D-LLM" / "data"
    write_data_folder(data)
    return data
