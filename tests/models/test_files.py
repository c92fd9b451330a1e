"""Files that are written whole."""

import pytest

from models.files import write_whole


def test_a_file_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "net_config.txt"
    write_whole(path, b"old")
    monkeypatch.setattr("os.replace", lambda *args: exit(1))
    with pytest.raises(SystemExit):
        write_whole(path, b"new")
    assert path.read_bytes() == b"old"
