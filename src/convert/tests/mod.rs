mod guardrails;
mod owned_keys;
mod policy;
mod readable_part;
mod record;
