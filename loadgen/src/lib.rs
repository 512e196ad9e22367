//! Synthetic dealer and test viewers.
