//! Test support: scratch folders, waiting for facts, helper children.
