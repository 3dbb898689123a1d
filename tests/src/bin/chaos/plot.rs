//! Unavailability by kind of fault, as a plot: a row per kind, a dot per step.

use std::path::Path;

use anyhow::{Result, anyhow};
use conclave_tests::chaos::availability::Cost;
use conclave_tests::chaos::record::millis;
use conclave_tests::quantile::quantile;
use plotters::prelude::*;

use crate::table::{Table, name};

const WIDTH: u32 = 1000;
const ROW_HEIGHT: u32 = 22;
/// Title, axis and margins.
const FRAME_HEIGHT: u32 = 110;
const NAMES_WIDTH: u32 = 260;

/// Draws the plot into a file.
///
/// # Errors
///
/// When it cannot be written.
pub(crate) fn draw(path: &Path, table: &Table) -> Result<()> {
    let rows: Vec<(String, &Vec<Cost>)> =
        table.rows.iter().map(|(row, costs)| (name(*row), costs)).collect();
    let size = (WIDTH, FRAME_HEIGHT + ROW_HEIGHT * rows.len() as u32);
    let area = SVGBackend::new(path, size).into_drawing_area();
    // The library's errors borrow the area: only their text gets out.
    plot(&area, &rows).map_err(|error| anyhow!("draw the plot: {error}"))
}

fn plot(
    area: &DrawingArea<SVGBackend<'_>, plotters::coord::Shift>,
    rows: &[(String, &Vec<Cost>)],
) -> Result<(), Box<dyn std::error::Error>> {
    let seconds = |cost: &Cost| millis(cost.unavailable) / 1e3;
    let longest = rows.iter().flat_map(|(_, costs)| costs.iter().map(seconds)).fold(1.0, f64::max);
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(area)
        .caption(
            "from the strike until exactly one node led again (bar: median)",
            ("sans-serif", 18),
        )
        .margin(12)
        .x_label_area_size(40)
        .y_label_area_size(NAMES_WIDTH)
        // From top to bottom, as in the table.
        .build_cartesian_2d(longest * -0.01..longest * 1.05, (rows.len() as f64 - 0.5)..-0.5)?;
    chart
        .configure_mesh()
        .disable_y_mesh()
        .y_labels(0)
        .x_desc("seconds")
        .light_line_style(WHITE)
        .draw()?;
    for (number, (name, costs)) in rows.iter().enumerate() {
        let y = number as f64;
        let label = chart.backend_coord(&(longest, y));
        area.draw(&Text::new(
            format!("{name} ({})", costs.len()),
            (16, label.1 - 7),
            ("sans-serif", 13),
        ))?;
        let unavailable: Vec<f64> = costs.iter().map(seconds).collect();
        chart.draw_series(unavailable.iter().enumerate().map(|(at, x)| {
            // Spread a little, so that equal ones do not hide each other.
            let spread = (at % 5) as f64 * 0.12 - 0.24;
            Circle::new((*x, y + spread), 3, BLUE.mix(0.35).filled())
        }))?;
        let median = quantile(&unavailable, 0.5);
        chart.draw_series([PathElement::new(
            [(median, y - 0.4), (median, y + 0.4)],
            RED.stroke_width(2),
        )])?;
    }
    area.present()?;
    Ok(())
}
