"""Where a project keeps checkpoints, studies and records, apart from its own folder: `storage` of params.yaml."""
