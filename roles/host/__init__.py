from roles.host.deploy import clear, leave, prepare, stamp

__all__ = ["clear", "leave", "prepare", "stamp"]
