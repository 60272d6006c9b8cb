from roles.torch.deploy import install

__all__ = ["install"]
