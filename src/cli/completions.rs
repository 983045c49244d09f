//! Completion scripts and the manual page, made from the words of the command itself.

use clap::CommandFactory as _;

use super::{Failure, args::Args, output::Out};

/// The script for a shell.
pub(super) fn completions(shell: clap_complete::Shell, out: &mut Out) {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Args::command(), "rnet", &mut script);
    out.text(&String::from_utf8_lossy(&script));
}

/// One page for the command and all its subcommands.
pub(super) fn man(out: &mut Out) -> Result<(), Failure> {
    let mut command = Args::command();
    command.build();
    let mut page = Vec::new();
    let failed = |error: std::io::Error| Failure::new(format!("the manual page cannot be made: {error}"));
    let manual = clap_mangen::Man::new(command.clone());
    manual.render(&mut page).map_err(failed)?;
    render_subcommands(&command, &mut page).map_err(failed)?;
    out.text(&String::from_utf8_lossy(&page));
    Ok(())
}

fn render_subcommands(command: &clap::Command, page: &mut Vec<u8>) -> std::io::Result<()> {
    for subcommand in command.get_subcommands() {
        let name = subcommand.get_bin_name().unwrap_or(subcommand.get_name()).to_uppercase();
        page.extend(format!(".SH \"{name}\"\n").as_bytes());
        let manual = clap_mangen::Man::new(subcommand.clone());
        manual.render_synopsis_section(page)?;
        manual.render_description_section(page)?;
        if subcommand.get_arguments().next().is_some() {
            manual.render_options_section(page)?;
        }
        render_subcommands(subcommand, page)?;
    }
    Ok(())
}
