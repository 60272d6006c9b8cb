from roles.vllm.batch import answer
from roles.vllm.deploy import install, serve

__all__ = ["answer", "install", "serve"]
