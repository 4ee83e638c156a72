from training_fixtures import discs, one_thread

__all__ = ["discs", "one_thread"]
