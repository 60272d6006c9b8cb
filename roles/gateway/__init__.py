from roles.gateway.deploy import clear, serve

__all__ = ["clear", "serve"]
