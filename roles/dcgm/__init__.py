from roles.dcgm.deploy import burn_in

__all__ = ["burn_in"]
