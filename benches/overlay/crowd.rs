//! A thousand hosts: the agent's part as it is shipped, each with records and a connection to the real store of its own, on
//! a model of the kernel. How long it takes until the last of them has what was written.

use std::{
    fs,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::mpsc::{Receiver, Sender, channel},
    thread,
    time::{Duration, Instant},
};

use rnet::{
    agent::overlay::{Core, Unable},
    cluster::{
        End, Host, Keys,
        address::{Address, Credentials},
        etcd::Etcd,
        operations::{Cluster, Refused, Wish},
    },
    kernel::{Fake, Kernel as _},
    plan::Plan,
    store::{NetworkState, Store},
    verbs::{Rnet, new_id},
};
use rnetkit_drivers::{Driver as _, MacAddress, Network, Resource, overlay::Overlay};
use rustix::process::{Resource as Limit, Rlimit, getrlimit, setrlimit};
use tokio::{
    runtime::Runtime,
    task::LocalSet,
    time::{interval, sleep},
};

use crate::lab::Done;

const STORE: &str = "etcd://198.51.100.254:2379/crowd";
const HOSTS: usize = 1000;
/// As many as there are processors here.
const THREADS: usize = 2;
/// How often a host says that it is alive.
const BEAT: Duration = Duration::from_secs(3);
/// How soon a store that did not answer is asked again.
const AGAIN: Duration = Duration::from_millis(200);

/// What a host says: that it is ready, or that its kernel has an endpoint of another host now.
enum Says {
    Ready,
    Failed(String),
    Placed(Instant),
}

/// Milliseconds from each write to the last host.
pub fn last(rounds: usize) -> Done<Vec<f64>> {
    let most = getrlimit(Limit::Nofile);
    let enough = Rlimit { current: most.maximum, maximum: most.maximum };
    setrlimit(Limit::Nofile, enough).map_err(|error| error.to_string())?;
    let folder = PathBuf::from("/run/crowd");
    let runtime = runtime()?;
    let mut cluster = Cluster::new(etcd()?, keys()?, host(0, new_id().map_err(|error| error.to_string())?)?);
    let network = runtime.block_on(async {
        cluster.register().await.map_err(text)?;
        cluster.create(&network()?).await.map_err(text)
    })?;
    let (says, hears) = channel();
    for part in 0..THREADS {
        let (folder, says) = (folder.clone(), says.clone());
        thread::spawn(move || {
            let told = says.clone();
            if let Err(error) = be_hosts(&folder, part, &says) {
                let _ = told.send(Says::Failed(error));
            }
        });
    }
    for ready in 0..HOSTS {
        eprint!("\ra thousand hosts: {} are ready", ready + 1);
        match hears.recv_timeout(Duration::from_secs(120)) {
            Ok(Says::Ready) => {}
            Ok(Says::Failed(error)) => return Err(error),
            Ok(Says::Placed(_)) | Err(_) => return Err("a host was never ready".to_owned()),
        }
    }
    // What they say of themselves ends.
    thread::sleep(Duration::from_secs(5));
    let mut times = Vec::new();
    for round in 0..rounds {
        eprint!("\ra thousand hosts: write {} of {rounds}    ", round + 1);
        times.push(runtime.block_on(write(&mut cluster, &network, &hears))?);
        thread::sleep(Duration::from_millis(500));
        // What goes is placed too, and in nobody's time.
        while hears.try_recv().is_ok() {}
    }
    eprintln!();
    Ok(times)
}

/// An endpoint comes, all hosts have it, and it goes.
async fn write(cluster: &mut Cluster<Etcd>, network: &Network, hears: &Receiver<Says>) -> Done<f64> {
    cluster.keep_alive().await.map_err(text)?;
    let id = new_id().map_err(|error| error.to_string())?;
    let wish = Wish { endpoint: id, name: "far".to_owned(), asked: Vec::new() };
    let addresses = cluster.reserve(network, &wish).await.map_err(text)?;
    let mac = MacAddress([2, 0x42, id.0[0], id.0[1], id.0[2], id.0[3]]);
    let end = End { id, container: None, name: wish.name, mac, addresses, aliases: Vec::new() };
    let start = Instant::now();
    cluster.publish(&network.id, &end).await.map_err(text)?;
    let mut last = start;
    for _ in 0..HOSTS {
        match hears.recv_timeout(Duration::from_secs(10)) {
            Ok(Says::Placed(at)) => last = last.max(at),
            Ok(Says::Failed(error)) => return Err(error),
            Ok(Says::Ready) | Err(_) => return Err("a host never had the endpoint".to_owned()),
        }
    }
    cluster.withdraw(&network.id, &id).await.map_err(text)?;
    Ok(last.duration_since(start).as_secs_f64() * 1000.0)
}

/// Is every second host.
fn be_hosts(folder: &Path, part: usize, says: &Sender<Says>) -> Done {
    let local = LocalSet::new();
    for number in (1..=HOSTS).filter(|number| number % THREADS == part) {
        let (folder, says) = (folder.join(number.to_string()), says.clone());
        local.spawn_local(async move {
            if let Err(error) = be_host(number, &folder, &says).await {
                let _ = says.send(Says::Failed(format!("host {number}: {error}")));
            }
        });
    }
    runtime()?.block_on(local);
    Ok(())
}

/// As the agent does it: what is followed is placed; every few seconds it says that it lives.
async fn be_host(number: usize, folder: &Path, says: &Sender<Says>) -> Done {
    fs::create_dir_all(folder).map_err(|error| error.to_string())?;
    let failed = |error: rnet::error::Error| error.to_string();
    let store = Store::open(&folder.join("root"), &folder.join("run")).map_err(failed)?;
    let rnet = Rnet::new(store.clone(), Fake::default());
    let me = host(number, rnet.identity().map_err(failed)?.host)?;
    let mut core = Core::new(Cluster::new(etcd()?, keys()?, me), rnet, Box::new(Unable));
    // A thousand that begin at once are more than anybody answers in time.
    while core.begin().await.is_err() {
        sleep(AGAIN).await;
    }
    let mut placed = 0;
    let mut beat = interval(BEAT);
    loop {
        tokio::select! {
            followed = async { core.follow.next(&core.cluster.store.clone()).await } => {
                let Ok(differences) = followed else {
                    sleep(AGAIN).await;
                    continue;
                };
                core.take(differences);
                if placed == 0 {
                    make(&store, core.rnet.kernel())?;
                    core.settle().await.map_err(text)?;
                    placed = 1;
                    says.send(Says::Ready).map_err(|_| "nobody listens")?;
                    continue;
                }
                let at = Instant::now();
                let now = 1 + usize::from(has_remote(core.rnet.kernel()));
                if now > placed {
                    says.send(Says::Placed(at)).map_err(|_| "nobody listens")?;
                }
                placed = now;
            }
            _ = beat.tick() => drop(core.begin().await),
        }
    }
}

/// The network as a first container would have it made.
fn make(store: &Store, kernel: &mut Fake) -> Done {
    let name = "ov".parse().map_err(|error| format!("{error}"))?;
    let network =
        store.definition(&name).map_err(|error| error.to_string())?.ok_or("it was not taken over")?;
    let made = Overlay.network(&network).map_err(|error| error.to_string())?;
    kernel.apply(&Plan::between(&[], &made), None).map_err(|error| error.to_string())?;
    let own = made.into_iter().filter(|resource| !resource.is_shared()).collect();
    let state = NetworkState { network, pending: false, made: own };
    store.set_network_state(&state).map_err(|error| error.to_string())
}

fn has_remote(kernel: &Fake) -> bool {
    let mut all = kernel.sandboxes.values().flat_map(|sandbox| &sandbox.resources);
    all.any(|(_, resource)| matches!(resource, Resource::Remote { .. }))
}

fn network() -> Done<Network> {
    let id = new_id().map_err(|error| error.to_string())?;
    let text = format!(
        "{{\"id\":\"{id}\",\"name\":\"ov\",\"driver\":\"overlay\",\"created\":0,\"pools\":[{{\"subnet\":\"10.9.0.0/16\",\
         \"gateway\":\"10.9.0.1\"}}],\"ipam_driver\":\"default\",\"group\":0,\"options\":{{\"mtu\":\"1450\"}}}}"
    );
    serde_json::from_str(&text).map_err(|error| error.to_string())
}

fn host(number: usize, id: rnetkit_drivers::Id) -> Done<Host> {
    let [high, low] = u16::try_from(number).map_err(|error| error.to_string())?.to_be_bytes();
    let address = IpAddr::from([10, 200, high, low]);
    Ok(Host { id, name: format!("h{number}"), address, mtu: 1500, generation: 1, fenced: false, key: None })
}

fn etcd() -> Done<Etcd> {
    Ok(Etcd::new(address()?, Credentials::default()))
}

fn keys() -> Done<Keys> {
    Ok(Keys::below(&address()?.prefix))
}

fn address() -> Done<Address> {
    STORE.parse().map_err(|error| format!("{STORE}: {error}"))
}

fn runtime() -> Done<Runtime> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.map_err(|error| error.to_string())
}

fn text(refused: Refused) -> String {
    format!("{refused:?}")
}
