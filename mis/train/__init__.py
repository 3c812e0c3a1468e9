"""One training: devices, strategy, checkpoint, fit."""
