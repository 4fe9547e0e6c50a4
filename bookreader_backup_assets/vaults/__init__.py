"""Places that keep artifacts. Policy stays out; reading is in."""
