from roles.vllm.deploy import install, serve

__all__ = ["install", "serve"]
