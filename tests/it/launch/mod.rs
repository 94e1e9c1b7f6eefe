//! `quorate server` supervises a real etcd: the launch tests.

mod child_life;
mod command_line;
mod configuration;
mod embedded;
mod empty_values;
mod faults;
mod frozen_disk;
mod health;
mod mistakes;
mod monitoring;
mod reload;
mod secrets;
mod start;
mod tasks;
mod user;
