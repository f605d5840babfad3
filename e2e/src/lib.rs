//! Support for the end-to-end suites: a cluster handle, faults as data, conditions with deadlines.
