"""What models and data from the Hugging Face hub share: names with a revision, downloads, errors in words.

huggingface_hub keeps what it downloads in its own cache (HF_HOME); HF_ENDPOINT names a mirror, and with
HF_HUB_OFFLINE=1 it asks nobody. Only weights in safetensors and tables of text are fetched, never code.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, Literal, cast

from forgetlab.errors import ForgetlabError, unknown

What = Literal["model", "dataset"]

WEIGHTS = ("model.safetensors", "model-*-of-*.safetensors")
WANTED = (*WEIGHTS, "heads.safetensors", "*.json", "*.txt", "*.model")  # tokenizers: vocab.txt, spiece.model
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.h5", "*.msgpack")


def with_revision(name: str, revision: str | None = None) -> tuple[str, str | None]:
    """ "owner/name@REVISION" in its two parts; `revision` says the second one as well.

    Raises ForgetlabError where both are given and differ.
    """
    short, _, own = name.partition("@")
    if own and revision and own != revision:
        raise ForgetlabError(f"{name} names the revision {own!r}, revision={revision!r} another: give one of them")
    return short, own or revision or None


def model_folder(name: str, revision: str | None = None) -> Path:
    """The folder of a hub model in huggingface_hub's cache; what is missing there is downloaded, with a progress bar.

    name: a hub id. revision: a branch, a tag or a commit (None: the main branch, as it is today).
    Raises ForgetlabError, in words, for everything that can go wrong: no network, no such model or revision,
    a gated model, weights in pickles only, a download that breaks off.
    """
    from huggingface_hub import snapshot_download, try_to_load_from_cache

    commit, files = look_up("model", name, revision)
    wanted = [file for file in files if "/" not in file and any(fnmatch(file, pattern) for pattern in WANTED)]
    if commit is not None:
        _check_weights(name, files)
    cached = all(isinstance(try_to_load_from_cache(name, file, revision=commit), str) for file in wanted)
    try:
        with _no_bars(cached):
            folder = snapshot_download(
                name,
                revision=revision,
                allow_patterns=wanted if commit is not None else list(WANTED),
                ignore_patterns=["*/*"],
                local_files_only=commit is None,
            )
    except Exception as error:
        raise refused(error, "model", name, revision) from None
    found = {path.name for path in Path(folder).iterdir()}
    if commit is None and not ("config.json" in found and any(fnmatch(file, "*.safetensors") for file in found)):
        raise ForgetlabError(f"{name}: only a part of it is in the local cache. {_without_network('model', name)}")
    return Path(folder)


def look_up(what: What, name: str, revision: str | None) -> tuple[str | None, list[str]]:
    """The commit that a revision stands for now, and the repository's files; (None, []) where the hub is out of reach.

    Raises ForgetlabError where the hub answers that there is no such repository or revision, or that it is gated.
    """
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        info = HfApi().repo_info(name, repo_type=what, revision=revision, timeout=constants.HF_HUB_ETAG_TIMEOUT)
    except HFValidationError as error:
        raise refused(error, what, name, revision) from None
    except Exception as error:
        if isinstance(error, HfHubHTTPError) and error.response.status_code in (401, 403, 404):
            raise refused(error, what, name, revision) from None
        return None, []  # no network, a hub in trouble, HF_HUB_OFFLINE: what is in the cache has to do
    return info.sha, [file.rfilename for file in getattr(info, "siblings", None) or []]


def refused(error: Exception, what: What, name: str, revision: str | None) -> ForgetlabError:
    """What went wrong with a download, and what to do, in one line."""
    from huggingface_hub import HfApi, constants
    from huggingface_hub.errors import (
        FileMetadataError,
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    page = f"{constants.ENDPOINT}/{'datasets/' if what == 'dataset' else ''}{name}"
    status = error.response.status_code if isinstance(error, HfHubHTTPError) else None
    if isinstance(error, HFValidationError):
        return ForgetlabError(f"{name!r} is no {what} id of the hub; expected OWNER/NAME or OWNER/NAME@REVISION")
    if isinstance(error, GatedRepoError):
        must = (
            "your account has no access yet: ask for it" if status == 403 else "ask for access, then `hf auth login`:"
        )
        return ForgetlabError(f"{name} is gated; {must} on {page}")
    if isinstance(error, RevisionNotFoundError):
        names: list[str] = []
        with suppress(Exception):
            refs = HfApi().list_repo_refs(name, repo_type=what)
            names = [ref.name for ref in (*refs.branches, *refs.tags)]
        return ForgetlabError(f"{unknown(f'revision of {name}', revision, names)} (a branch, a tag or a commit)")
    if isinstance(error, RepositoryNotFoundError):
        return ForgetlabError(f"the hub has no {what} {name!r}, or it is private (then `hf auth login` first): {page}")
    if isinstance(error, LocalEntryNotFoundError):
        told = isinstance(error.__cause__, FileMetadataError | HfHubHTTPError)
        return unreachable(what, name, first_line(cast(Exception, error.__cause__)) if told else "")
    if status in (401, 403, 404):
        return ForgetlabError(f"the hub refuses {name} ({status}: {first_line(error)}); see {page}")
    reason = f"the hub answers {status}" if status else first_line(error)
    return ForgetlabError(f"{name}: the download broke off ({reason}); nothing of that file was kept, so try again")


def unreachable(what: What, name: str, reason: str = "") -> ForgetlabError:
    """What to do where the hub cannot be reached and the cache has nothing."""
    from huggingface_hub import constants

    why = reason or f"{constants.ENDPOINT} does not answer"
    return ForgetlabError(
        f"{name} could not be fetched ({why}) and is not in the local cache. {_without_network(what, name)}"
    )


def drop_damaged(folder: Path) -> None:
    """Remove the weights in a cached folder that cannot be opened, so that the next try downloads them again."""
    from safetensors import SafetensorError, safe_open

    for file in folder.glob("*.safetensors"):
        try:
            with safe_open(file, framework="pt"):
                pass
        except SafetensorError:
            blob = file.resolve()  # the file is a link to it
            file.unlink()
            blob.unlink(missing_ok=True)


def first_line(error: Exception) -> str:
    """The first line of an error's message, or its type where it has none."""
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]


def _check_weights(name: str, files: list[str]) -> None:
    if any(fnmatch(file, pattern) for file in files for pattern in WEIGHTS) and "config.json" in files:
        return
    if "adapter_config.json" in files:
        raise ForgetlabError(f"{name} is an adapter, not a model: load its base model, and the adapter with peft")
    pickles = [file for file in files if "/" not in file and any(fnmatch(file, pattern) for pattern in PICKLES)]
    if "config.json" in files and pickles:
        raise ForgetlabError(
            f"{name} has no model.safetensors, only {pickles[0]}, a format that is not opened here (a pickle can run "
            "code): look for a converted copy (often revision='refs/pr/1'), or where you trust it run transformers' "
            f"AutoModel.from_pretrained({name!r}).save_pretrained(FOLDER) and give FOLDER"
        )
    there = ", ".join(files[:5]) or "nothing"
    raise ForgetlabError(f"{name} is not a transformers model: expected config.json and model.safetensors, has {there}")


def _without_network(what: What, name: str) -> str:
    option = " --repo-type dataset" if what == "dataset" else ""
    return (
        f"Where there is a network, run `hf download {name}{option} --local-dir FOLDER`, copy FOLDER here and "
        "give its folder as the name; or set HF_ENDPOINT to a mirror that can be reached"
    )


@contextmanager
def _no_bars(wanted: bool) -> Iterator[None]:
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    quiet: Any = wanted and not are_progress_bars_disabled()
    if quiet:
        disable_progress_bars()
    try:
        yield
    finally:
        if quiet:
            enable_progress_bars()
