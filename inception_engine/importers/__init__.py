"""Files of other programs -> Network."""
