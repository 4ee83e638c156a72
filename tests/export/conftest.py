from finished_run import finished
from training_fixtures import discs, one_thread

__all__ = ["discs", "finished", "one_thread"]
