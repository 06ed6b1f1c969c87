"""What can go wrong in training, as a line of text."""


class TrainError(Exception):
    """Training cannot begin or go on. Base of all."""


class ConfigError(TrainError):
    """A key that does not exist, a value that it cannot have, or keys that contradict each other."""


class CheckpointError(TrainError):
    """A checkpoint that cannot be read or written, or that is of another training."""


class PeerError(TrainError):
    """Another process of the training ended, so this one cannot go on."""
