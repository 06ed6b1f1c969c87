"""Training: the paper's recipe (section 6) on labelled images."""
