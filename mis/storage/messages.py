"""What is said of the storage."""

import os
from pathlib import Path

from mis.errors import MisError, WorkerError

CREDENTIALS = (
    "AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, for a key that expires AWS_SESSION_TOKEN, AWS_REGION and, for another "
    "server than AWS, AWS_ENDPOINT_URL"
)
"""The variables that say who asks which server."""


def bad_path(path: str) -> MisError:
    """Return the error for a `storage.path` that is neither a folder nor on S3."""
    return MisError("storage.path must be a folder or begin with s3://", got=path)


def credentials_in_path() -> MisError:
    """Return the error for a `storage.path` that may have a password; it is not repeated."""
    return MisError(
        "storage.path must be s3://BUCKET/FOLDER alone, got one with a user, an option or a space",
        do=f"set {CREDENTIALS} in the environment",
    )


def not_a_folder(path: str) -> MisError:
    """Return the error for a folder that does not exist."""
    return MisError(
        "storage.path must be a folder that all nodes see", got=path, do="make it, or mount its file system"
    )


def relative_stage_to(text: str) -> MisError:
    """Return the error for a `storage.stage_to` that is another folder for each process that reads it."""
    return MisError(
        "storage.stage_to must be an absolute path, on each node", got=text, do="begin it with /, ~ or a variable"
    )


def cannot_stage(folder: Path, reason: str) -> MisError:
    """Return the error for a `storage.stage_to` in which nothing can be written."""
    return MisError(
        f"storage.stage_to must be a folder that can be written on {os.uname().nodename} ({reason})",
        got=folder,
        do="name another one, or null to read the records where they are",
    )


def unset_variable(key: str, value: str) -> MisError:
    """Return the error for a path with a variable that is not set."""
    return MisError(
        f"{key} must be a path of set variables",
        got=value,
        do="set the variable, in the command's environment for storage.path, on each node for storage.stage_to",
    )


def not_private(folder: Path, found: str) -> MisError:
    """Return the error for a folder of this user that others may use too, or have made.

    Args:
        folder: The folder, below which are files of patients.
        found: What it is instead.
    """
    return MisError(
        f"{folder} must be a folder that this user alone can read and write",
        got=found,
        do="see who has made it, and remove it, or `chmod 700` it where it is yours; or set TMPDIR or storage.stage_to "
        "to a folder of your own",
    )


def advice(reason: str, *, on_node: bool = False) -> str:
    """Return what to do about a storage that cannot be used.

    Args:
        reason: What the server, or the library, says.
        on_node: Whether a node of a cluster says so, whose variables are those of `ray start`.
    """
    where = ", where `ray start` is given there" if on_node else ""
    server = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
    if "bucket" in reason:
        return "make the bucket, or name another one in storage.path"
    if "network connection" in reason or "resolve" in reason:
        shown = "" if server is None or "@" in server else f" {server}"  # it may have a password
        asked = "that of AWS, as AWS_ENDPOINT_URL is not set" if server is None else f"AWS_ENDPOINT_URL{shown}"
        return f"see that the server answers from there; the one that was asked is {asked}{where}"
    return f"set {CREDENTIALS}{where}"


def refused(url: str, reason: str) -> MisError:
    """Return the error for a storage that answers, and refuses.

    Args:
        url: What was asked for.
        reason: What the server says.
    """
    return MisError(
        f"the storage must let this process read and write {url} ({reason})",
        do=advice(reason),
    )


NOT_ANSWERED, NOT_TAKEN = "has not answered for", "has not taken the last checkpoints for"


def is_away(reason: str) -> bool:
    """Return whether an error says that the storage does not answer.

    >>> is_away(str(away("s3://a", "network connection", 600)))
    True
    """
    return NOT_ANSWERED in reason or NOT_TAKEN in reason


def away(url: str, reason: str, wait_s: float) -> WorkerError:
    """Return the error for a storage that has not answered for too long.

    Args:
        url: What was asked for.
        reason: What the last attempt said.
        wait_s: How long was waited, in seconds.
    """
    return WorkerError(
        f"{url} {NOT_ANSWERED} {wait_s:.0f} s ({reason}); what is kept on this machine is whole, and the same "
        "command goes on when the storage answers again"
    )


def went_on_twice(what: str, folder: Path, url: str) -> MisError:
    """Return the error for what has gone on here and on another machine, each without knowing of the other."""
    return MisError(
        f"{what} must go on in one place, got {folder} and {url}, which have gone on apart",
        do="keep one: delete the folder here, or the one there",
    )


def runs_elsewhere(what: str, who: str) -> MisError:
    """Return the error for what another process runs."""
    return MisError(f"{what} must run once at a time", got=who, do="wait for it, or end it")


def kept_at(what: str, url: str, given: str | None) -> MisError:
    """Return the error for what is kept in another place than is named now.

    Args:
        what: What it is, for people.
        url: Where it is kept.
        given: Where it is looked for; None for this machine alone.
    """
    return MisError(
        f"{what} must go on where it is kept, in {url}",
        got="storage.path null" if given is None else given,
        do="give the storage.path that it was begun with: params.yaml, or --set storage.path=...",
    )


def taken_over(what: str) -> str:
    """Return the line for a process that another one has taken for dead."""
    return f"another process goes on with {what}, because this one showed no sign of life: this one ends"


def waits_for_sign_of_life(what: str, who: str, wait_s: float) -> str:
    """Return the line for what another process may be running.

    Args:
        what: What it is, for people.
        who: The process that ran it last.
        wait_s: How long is waited for a sign of life, in seconds.
    """
    return f"{what} was run by {who} and was not left in order: it is looked for {wait_s:.0f} s whether that lives"


def does_not_answer(url: str, reason: str) -> str:
    """Return the line for a storage that does not answer for now."""
    return f"{url} does not answer ({reason}): the work goes on, and what is to be kept there waits on this machine"


def refuses_now(url: str, reason: str) -> str:
    """Return the line for a storage that has begun to refuse."""
    return f"{url} refuses ({reason}): the work goes on, and what is to be kept there waits on this machine"


def cannot_be_read(url: str, reason: str) -> str:
    """Return the line for a file of this machine that cannot be read."""
    return f"a file for {url} cannot be read ({reason}): the work goes on, and it is tried again"


def stays(url: str) -> str:
    """Return the line for what could not be deleted."""
    return (
        f"{url} does not answer: what this training has kept there stays, and the same command takes it as the result"
    )


def sent_there(folder: Path, url: str) -> str:
    """Return the line for checkpoints of this machine that are kept on a server from now on."""
    return f"the checkpoints in {folder} go to {url}"


def answers_again(url: str) -> str:
    """Return the line for a storage that answers again."""
    return f"{url} answers again: what has waited is there"


def waits_for(url: str, reason: str, wait_s: float) -> str:
    """Return the line for a process that cannot go on without the storage.

    Args:
        url: What is asked for.
        reason: What the last attempt said.
        wait_s: How long it is waited for, in seconds.
    """
    return f"{url} does not answer ({reason}): it is waited for, for {wait_s:.0f} s at most"


def not_delivered(url: str, folder: Path, wait_s: float) -> WorkerError:
    """Return the error for checkpoints that could not be sent.

    Args:
        url: Where they were to be sent.
        folder: Where they are.
        wait_s: How long was waited, in seconds.
    """
    return WorkerError(f"{url} {NOT_TAKEN} {wait_s:.0f} s; they wait in {folder} on this node")
