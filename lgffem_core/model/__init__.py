"""The LGFFEM model: frozen backbone, local–global feature fusion neck, GeM head (paper, section 3)."""
