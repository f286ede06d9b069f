"""What a lesson finds out about the machine it runs on."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from importlib.metadata import PackageNotFoundError

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


def test_what_is_too_old_is_said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """As on a machine of another age: pip is not asked whether forgetlab goes with what is there."""
    own = {"torch": "2.6.0+cu124", "matplotlib": "3.7.5", "transformers": "4.53.3", "ipywidgets": "8.1.5"}
    wanted = ["torch>=2.4", "matplotlib>=3.7", "transformers>=5.0", "ipywidgets>=7.7.1", 'peft>=0.17; extra == "peft"']

    def version(name: str) -> str:
        if name not in own:
            raise PackageNotFoundError(name)
        return own[name]

    monkeypatch.setattr(notebook, "requires", lambda name: wanted)
    monkeypatch.setattr(notebook, "version", version)
    old = '"transformers>=5.0" (here 4.53.3)'
    assert notebook.too_old() == (
        f"forgetlab needs {old}: install that with pip and restart the kernel before you go on."
    )
    notebook.setup()
    assert capsys.readouterr().out.startswith(notebook.too_old() + "\nforgetlab ")
    wanted.append("tokenizers>=0.20")
    assert f'{old}, "tokenizers>=0.20" (here none): install' in notebook.too_old()
    own.update(transformers="5.0.0rc1", tokenizers="0.21")  # a release candidate of 5.0 lacks what 5.0 has
    assert '"transformers>=5.0" (here 5.0.0rc1)' in notebook.too_old()
    own.update(transformers="5.2.0.dev0")
    assert notebook.too_old() == ""


def _transformers() -> str:
    import transformers

    return transformers.__version__
