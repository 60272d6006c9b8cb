from roles.ollama.deploy import serve

__all__ = ["serve"]
