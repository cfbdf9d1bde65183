//! Explores the configurations with large bounds, or those that the arguments name, and prints what it found.

use std::{
    env,
    io::{self, Write},
    process::ExitCode,
    time::Instant,
};

use dekseal_model::{configuration::all, model::Model};
use stateright::{Checker, HasDiscoveries, Model as _};

fn main() -> ExitCode {
    let mut names: Vec<String> = env::args().skip(1).collect();
    let large = !names.iter().any(|name| name == "--small");
    names.retain(|name| name != "--small");
    let mut code = ExitCode::SUCCESS;
    for configuration in all(large) {
        if !names.is_empty() && !names.iter().any(|name| name == configuration.name) {
            continue;
        }
        let started = Instant::now();
        print!("{:12}", configuration.name);
        let _ = io::stdout().flush();
        let checker = Model::new(configuration)
            .checker()
            .finish_when(HasDiscoveries::AnyFailures)
            .threads(2)
            .spawn_bfs()
            .join();
        println!(
            "{:>10} states, {:>3} steps deep, {:>6.1} s",
            checker.unique_state_count(),
            checker.max_depth(),
            started.elapsed().as_secs_f64()
        );
        for (property, path) in checker.discoveries() {
            println!("broken: {property}");
            for (state, action) in path.into_vec() {
                println!("{action:?}");
                if action.is_none() {
                    println!("{state:#?}");
                }
            }
            code = ExitCode::FAILURE;
        }
    }
    code
}
