"""The functional tracker: pure `init` and `step`, one stream, many streams, or chunks of frames."""
