"""How a service is reached: inside its container, or directly on this machine."""
