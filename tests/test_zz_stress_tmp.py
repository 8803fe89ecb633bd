from concurrent.futures import ThreadPoolExecutor
from collections import Counter
import random, json
pytest_plugins=["tests.live"]
def test_stress(live):
    v=live.village(); es=[live.elder(v) for _ in range(3)]; d=live.device()
    def bind(i):
        return live.admin.__class__(live.base, live.admin.headers["Authorization"][7:]).put(f"/devices/{d}/binding",json={"elder_id":es[i%3]["id"]})
    with ThreadPoolExecutor(16) as p: rs=list(p.map(bind,range(120)))
    print("bind",Counter(r.status_code for r in rs), {r.text for r in rs if r.status_code!=200})
    a=live.alarm(es[0])
    def act(i):
        api=live.admin.__class__(live.base, live.admin.headers["Authorization"][7:])
        m=random.choice(["acknowledge","attend","escalate","comments","resolve" if i>100 else "acknowledge"])
        b={"text":"x"} if m=="comments" else {"outcome":"test"} if m=="resolve" else {}
        return m,api.post(f"/alarms/{a['id']}/{m}",json=b)
    with ThreadPoolExecutor(16) as p: rs=list(p.map(act,range(150)))
    print("act",Counter((m,r.status_code) for m,r in rs))
    def mix(i):
        api=live.admin.__class__(live.base, live.admin.headers["Authorization"][7:])
        e=random.choice(es)
        k=i%5
        if k==0: return api.patch(f"/elders/{e['id']}",json={"dementia":True})
        if k==1: return api.post("/alarms",json={"elder_id":e["id"],"note":"x","kind":"fall"})
        if k==2: return api.patch(f"/elders/{e['id']}",json={"region_code":random.choice([v,v2])})
        if k==3: return api.get(f"/elders/{e['id']}/timeline")
        return api.post(f"/elders/{e['id']}/contacts",json={"name":"x","relation":"y","channels":[{"kind":"console","address":"x"}]})
    v2=live.village()
    with ThreadPoolExecutor(16) as p: rs=list(p.map(mix,range(200)))
    print("mix",Counter(r.status_code for r in rs), {r.text for r in rs if r.status_code>=400})
    print(live.log.read_text()[-2000:])
    # duty overlap, concurrent same device register
    def reg(i): return live.admin.__class__(live.base, live.admin.headers["Authorization"][7:]).post("/devices",json={"device_id":"same","kind":"other"})
    with ThreadPoolExecutor(8) as p: rs=list(p.map(reg,range(8)))
    print("reg",Counter(r.status_code for r in rs),{r.text for r in rs if r.status_code!=201})
    def usr(i): return live.admin.__class__(live.base, live.admin.headers["Authorization"][7:]).post("/users",json={"username":"Same-u"+"er"[i%2]*0+"x","password":"a-long-password-7","role":"operator","region_code":"370302"})
    with ThreadPoolExecutor(8) as p: rs=list(p.map(usr,range(8)))
    print("usr",Counter(r.status_code for r in rs),{r.text for r in rs if r.status_code!=201})
    def asg(i): return live.admin.__class__(live.base, live.admin.headers["Authorization"][7:]).post(f"/elders/{es[0]['id']}/visitors",json={"visitor_id":vis["id"]})
    vis=live.visitor(v)
    with ThreadPoolExecutor(8) as p: rs=list(p.map(asg,range(8)))
    print("asg",Counter(r.status_code for r in rs),{r.text for r in rs if r.status_code!=201})
    def rgn(i): return live.admin.__class__(live.base, live.admin.headers["Authorization"][7:]).post("/regions",json={"code":"370302003999","name":"x"})
    with ThreadPoolExecutor(8) as p: rs=list(p.map(rgn,range(8)))
    print("rgn",Counter(r.status_code for r in rs),{r.text for r in rs if r.status_code!=201})
