//! Does the steps of a plan, and takes them back when one fails.
