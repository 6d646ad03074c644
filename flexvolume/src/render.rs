//! The one JSON object of an answer.
