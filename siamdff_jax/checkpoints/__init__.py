"""What a training leaves on the disk: saved, found again, read, and told when it is damaged."""
