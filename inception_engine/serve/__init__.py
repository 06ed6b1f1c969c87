"""`inception serve`: images in over HTTP, classes out, in batches.

``batching`` makes batches of images that come one by one, ``engines`` runs them, ``application`` is the HTTP in front
of both, ``metrics`` what it counts, ``command`` the process: options, socket, signals.
"""
