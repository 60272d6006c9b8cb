from roles.nvidia.deploy import install

__all__ = ["install"]
