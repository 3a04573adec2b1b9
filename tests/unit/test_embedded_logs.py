import json
import logging
import stat
from pathlib import Path

from control_plane.embedded import logs


def test_a_large_log_moves_aside_and_the_oldest_goes(tmp_path: Path) -> None:
    log = tmp_path / "api.log"
    for number in range(6):
        log.write_text(f"run {number} " + "x" * 100)
        logs.rotate(log, limit=50, kept=3)
        assert not log.exists()
    kept = [(tmp_path / f"api.log.{number}").read_text().split("x")[0] for number in (1, 2, 3)]
    assert kept == ["run 5 ", "run 4 ", "run 3 "]
    assert not (tmp_path / "api.log.4").exists()


def test_a_small_log_is_appended_to(tmp_path: Path) -> None:
    log = tmp_path / "api.log"
    for line in (b"one\n", b"two\n"):
        with logs.open_for(log) as file:
            file.write(line)
    assert log.read_text() == "one\ntwo\n"
    assert stat.S_IMODE(log.stat().st_mode) == 0o600


def test_a_log_in_use_is_emptied_under_its_writer(tmp_path: Path) -> None:
    log = tmp_path / "api.log"
    with logs.open_for(log) as writer:
        writer.write(b"x" * 100 + b"\n")
        writer.flush()
        logs.trim(log, limit=50)
        writer.write(b"next\n")
        writer.flush()
        assert log.read_text() == "next\n"  # no hole of zeroes: the writer appends
    assert (tmp_path / "api.log.1").stat().st_size == 101


def test_the_tail_is_the_last_lines_that_say_something(tmp_path: Path) -> None:
    log = tmp_path / "api.log"
    log.write_text("\n".join(str(number) for number in range(9_000)) + "\n\n")
    assert logs.tail(log, 2) == ["8998", "8999"]
    assert logs.tail(tmp_path / "none.log") == []


def test_a_line_of_the_supervisor_is_json_with_the_members_of_the_others() -> None:
    record = logging.LogRecord("x", logging.WARNING, "f", 1, "%s ended", ("api",), None)
    line = json.loads(logs.JsonFormatter().format(record))
    assert (line["event"], line["level"], line["process"]) == ("api ended", "warning", "supervisor")
    assert line["timestamp"].endswith("Z")
