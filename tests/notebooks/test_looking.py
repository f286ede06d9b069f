"""What a lesson finds out about the machine it runs on."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
import torch
from huggingface_hub import constants

from forgetlab.teaching import notebook


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """A hub that refuses everyone; the requests that came."""
    seen: list[str] = []

    class Refusing(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            seen.append(self.path)
            self.send_error(403)

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Refusing)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    yield seen
    server.shutdown()
    server.server_close()


def test_a_hub_that_answers_is_found(asked: list[str]) -> None:
    assert notebook.network()
    assert len(asked) == 1


def test_offline_means_that_nobody_is_asked(asked: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert not notebook.network()
    assert asked == []


@pytest.mark.parametrize("endpoint", ["http://127.0.0.1:9", "http://", "nonsense"])
def test_no_answer_is_no_hub(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    assert not notebook.network()


def test_set_up_says_which_device_and_which_gpu(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    notebook.setup()
    assert capsys.readouterr().out.endswith(f"torch {torch.__version__}, transformers {_transformers()}, on cpu\n")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Card 4")
    notebook.setup()
    assert "on cpu\nGPU: Card 4. The labs leave it alone" in capsys.readouterr().out


def test_what_an_installation_did_is_said() -> None:
    before = {"torch": "1", "other": "2"}
    assert notebook.changes(before, {**before, "forgetlab": "3"}).startswith("Added: forgetlab 3. Nothing was replaced")
    words = notebook.changes(before, {"torch": "1.1", "forgetlab": "3"})
    assert "Replaced: torch 1 → 1.1, other 2 → gone. Restart the kernel" in words


def _transformers() -> str:
    import transformers

    return transformers.__version__
