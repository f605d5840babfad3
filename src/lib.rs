//! `kubectl bookaccess`.
