//! offhost-sim
use offhost_sim::client::*;
use offhost_sim::suite::*;
#[tokio::main]
async fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt().with_env_filter(tracing_subscriber::EnvFilter::from_default_env()).with_writer(std::io::stderr).init();
    let args: Vec<String> = std::env::args().collect();
    let unit: offhost_sim::url::Url = args[1].parse()?;
    println!("{:?}", discover(&unit.portal, &Options::default()).await);
    let tape = args.get(2).map(|t| t.parse()).transpose()?;
    let bench = Bench::probe(Devices { unit, tape, destroy: true, options: Options::default() }).await?;
    let filter = args.get(3).cloned().unwrap_or_default();
    let r = run(&[Suite::Spc, Suite::Sbc, Suite::Ssc, Suite::Login, Suite::Xcopy], &filter, &bench, |r| println!("{}/{} {:?}", r.suite.name(), r.name, r.verdict)).await;
    println!("{}", exit_status(&r));
    Ok(())
}
