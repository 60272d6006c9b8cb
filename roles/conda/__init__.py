from roles.conda.deploy import install

__all__ = ["install"]
