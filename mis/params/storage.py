"""Where checkpoints, studies and records are kept, and what each node copies to its own disk."""

from mis.params.base import PositiveFloat, Section


class StorageParams(Section):
    """Where things are kept. Nothing here changes a result: no study, training or record is another one for it."""

    path: str | None = None
    """A folder that all nodes see, or `s3://BUCKET/FOLDER`; null: the project's own folder."""
    stage_to: str | None = None
    """A folder on each node's own disk, e.g. `$TMPDIR`, to which the records are copied once; null: they are read
    where they are, or from the temporary folder where they are on S3."""
    wait_s: PositiveFloat = 600.0
    """How long a process that cannot go on waits for an S3 server that does not answer."""
