"""The command line's config: composed by Hydra, checked whole, every mistake in one line. Never imports torch."""
