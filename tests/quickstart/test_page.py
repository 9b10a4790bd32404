"""What `make run` prints."""

from __future__ import annotations

from pathlib import Path

from gateway.quickstart.page import page as page_of


def page(data_dir: str) -> str:
    return page_of("http://127.0.0.1:1", "key", "link", Path(data_dir))


def test_the_trail_commands_name_a_data_directory_that_is_not_the_default() -> None:
    assert "gateway audit query; .venv/bin/gateway audit verify\n" in page("var")
    told = page("/tmp/my var")
    assert (
        "gateway audit query --data-dir '/tmp/my var'; .venv/bin/gateway audit verify --data-dir '/tmp/my var'\n"
        in told
    )
