from roles.conda.deploy import hold, install

__all__ = ["hold", "install"]
